/** The environment of a command in a guest that was given none. */
import { GUEST_PATH } from '../agent/guest-path.js';
import type { CommandIo } from '../base/command-io.js';

/** Nothing of this machine's environment but what its terminal is. */
export function guestEnvironment(io: CommandIo): Record<string, string> {
  const term = io.stdoutIsTerminal ? io.env['TERM'] : undefined;
  return {
    PATH: GUEST_PATH,
    HOME: '/root',
    TERM: term !== undefined && /^[\w.+-]{1,64}$/.test(term) ? term : 'dumb',
  };
}
