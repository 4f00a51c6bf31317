// Jest setup provided by the scaffold
import './.config/jest-setup';

// jsdom draws nothing; Grafana's pickers only want to know how wide a text is.
HTMLCanvasElement.prototype.getContext = () => ({ measureText: (text) => ({ width: 8 * text.length }) });

// i18next greets every test file with a line of advertising.
jest.spyOn(console, 'info').mockImplementation(() => undefined);

// Nothing in jsdom has a size or a place, and Grafana's lists and tooltips show nothing without one.
const box = { x: 0, y: 0, top: 0, left: 0, right: 600, bottom: 600, width: 600, height: 600 };
Element.prototype.getBoundingClientRect = () => ({ ...box, toJSON: () => box });
for (const side of ['clientHeight', 'clientWidth', 'offsetHeight', 'offsetWidth']) {
  Object.defineProperty(HTMLElement.prototype, side, { configurable: true, value: 600 });
}
global.IntersectionObserver = class {
  observe() {}
  unobserve() {}
  disconnect() {}
};
