// Tests run in UTC wherever they run.
process.env.TZ = 'UTC';

const scaffold = require('./.config/jest.config');

const [[transformer, options]] = Object.values(scaffold.transform);

module.exports = {
  // Jest configuration provided by the scaffold, with React's automatic JSX runtime, and .mjs files read too.
  ...scaffold,
  // Grafana's pickers are slow in jsdom, and slower on a busy machine.
  testTimeout: 60_000,
  transform: {
    '^.+\\.m?(t|j)sx?$': [
      transformer,
      { ...options, jsc: { ...options.jsc, target: 'es2022', transform: { react: { runtime: 'automatic' } } } },
    ],
  },
};
