// Tests run in UTC wherever they run.
process.env.TZ = 'UTC';

const scaffold = require('./.config/jest.config');

const [pattern, [transformer, options]] = Object.entries(scaffold.transform)[0];

module.exports = {
  // Jest configuration provided by the scaffold, with React's automatic JSX runtime.
  ...scaffold,
  transform: {
    [pattern]: [
      transformer,
      { ...options, jsc: { ...options.jsc, target: 'es2022', transform: { react: { runtime: 'automatic' } } } },
    ],
  },
};
