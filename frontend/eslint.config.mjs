import grafanaConfig from '@grafana/eslint-config';
import { defineConfig } from 'eslint/config';

export default defineConfig([
  { ignores: ['node_modules/', '.config/', 'coverage/'] },
  ...grafanaConfig,
  {
    rules: {
      'react/prop-types': 'off',
      // The automatic JSX runtime brings it in.
      'react/react-in-jsx-scope': 'off',
    },
  },
  {
    files: ['src/**/*.{ts,tsx}'],
    languageOptions: { parserOptions: { project: './tsconfig.json' } },
    rules: { '@typescript-eslint/no-deprecated': 'error' },
  },
]);
