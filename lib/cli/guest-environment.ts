/** The environment of a command in a guest that was given none. */
import type { CommandIo } from '../base/command-io.js';

/** Nothing of this machine's environment but what its terminal is. */
export function guestEnvironment(io: CommandIo): Record<string, string> {
  const term = io.stdoutIsTerminal ? io.env['TERM'] : undefined;
  return {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/root',
    TERM: term !== undefined && /^[\w.+-]{1,64}$/.test(term) ? term : 'dumb',
  };
}
