/** Text of others for people: bounded, and without control characters (C0, DEL, C1) that would steer a terminal. */
export function printable(text: string, maxChars: number): string {
  return text.slice(0, maxChars).replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}
