import { defineConfig } from 'eslint/config';
import baseConfig from './.config/eslint.config.mjs';

export default defineConfig([
  { ignores: ['node_modules/', '.config/', 'coverage/'] },
  ...baseConfig,
  {
    rules: {
      // The automatic JSX runtime brings it in.
      'react/react-in-jsx-scope': 'off',
    },
  },
]);
