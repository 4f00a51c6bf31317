import { addHeader, headersOf, removeHeader, renameHeader, Settings } from './headers';

function settings(names: string[], stored: number[] = []): Settings {
  return {
    jsonData: Object.fromEntries(names.map((name, index) => [`httpHeaderName${index + 1}`, name])),
    secureJsonFields: Object.fromEntries(stored.map((number) => [`httpHeaderValue${number}`, true])),
    secureJsonData: {},
  } as unknown as Settings;
}

it('adds, names and lists headers', () => {
  const two = renameHeader(addHeader(settings(['X-A'], [1])), 2, 'X-B');
  expect(headersOf(two)).toEqual([
    { number: 1, name: 'X-A', hasValue: true },
    { number: 2, name: 'X-B', hasValue: false },
  ]);
});

it('removes the last one and forgets its value', () => {
  const left = removeHeader(settings(['X-A', 'X-B'], [1, 2]), 2);
  expect(headersOf(left)).toEqual([{ number: 1, name: 'X-A', hasValue: true }]);
  expect(left.secureJsonData).toEqual({ httpHeaderValue2: '' });
});

it('closes the hole of one in the middle, and never gives a header the value of another', () => {
  const left = removeHeader(settings(['X-A', 'X-B', 'X-C'], [1, 2, 3]), 2);
  expect(headersOf(left)).toEqual([
    { number: 1, name: 'X-A', hasValue: true },
    { number: 2, name: 'X-C', hasValue: false },
  ]);
  expect(left.secureJsonData).toEqual({ httpHeaderValue2: '', httpHeaderValue3: '' });
});
