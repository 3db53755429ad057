/**
 * The guest's kernel command line: the default, or the user's in its place, and what is appended. Pure.
 */

/** What a run's options say about it. */
export interface CmdlineOptions {
  readonly cmdline: string | undefined;
  readonly append: string | undefined;
  readonly command: readonly string[] | undefined;
  /** Others may want to run commands in it. */
  readonly isNamed?: boolean;
}

/**
 * console=ttyS0: the console that the machine has. panic=-1: a panic resets at once, which ends the machine.
 * quiet: every byte of the log is an exit of the guest; `--append loglevel=7` shows it.
 */
export const DEFAULT_CMDLINE = 'console=ttyS0 panic=-1 quiet';

/**
 * With a COMMAND `vivarium.agent` makes the default initramfs start the guest agent; it stands there also when the rest
 * was replaced, since without it there is nobody to run the COMMAND. In a guest that others reach by name the agent stands
 * beside the shell on the console.
 */
export function kernelCommandLine(
  options: CmdlineOptions,
  size: { readonly columns: number; readonly rows: number } | undefined,
): string {
  const parts = [options.cmdline ?? DEFAULT_CMDLINE];
  if (options.command !== undefined) parts.push('vivarium.agent');
  else if (options.isNamed === true) parts.push('vivarium.agent=beside');
  if (options.command === undefined && options.cmdline === undefined && size !== undefined)
    parts.push(`vivarium.size=${size.columns}x${size.rows}`);
  if (options.append !== undefined) parts.push(options.append);
  return parts
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .join(' ');
}
