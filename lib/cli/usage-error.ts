/** A mistake on the command line: said in one line, ends with status 125. */
export class UsageError extends TypeError {
  override readonly name = 'UsageError';
}
