/** What a run of the tests promises to have: VIVARIUM_PROMISES, words with spaces between. A test that needs it then fails rather than be skipped. */
export const isPromised = (what: 'qemu-img' | 'qemu-ga' | 'taps' | 'chromium'): boolean =>
  (process.env['VIVARIUM_PROMISES'] ?? '').split(' ').includes(what);
