/** What a machine may be called: also the name of a folder, so it has no slash and does not begin with a dot. */
import { randomBytes } from 'node:crypto';

const NAME = /^[A-Za-z0-9][\w.-]{0,62}$/;

/** For whoever is refused. */
export const MACHINE_NAME_RULE = "letters, digits, '.', '_' and '-', at most 63";

export function isMachineName(name: unknown): name is string {
  return typeof name === 'string' && NAME.test(name);
}

/** A name that nobody has. */
export function freshName(): string {
  return `vm-${randomBytes(4).toString('hex')}`;
}
