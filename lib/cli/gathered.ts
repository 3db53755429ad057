/** For an option of a command line that may come more than once. */
export function gathered(text: string, before: readonly string[]): readonly string[] {
  return [...before, text];
}
