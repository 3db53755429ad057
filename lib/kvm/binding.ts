/**
 * Loads the addon, once for each environment (main thread or Worker). The only file that may.
 * Turns the addon's failures into the typed errors of base/errors.ts.
 */
import { createRequire } from 'node:module';
import { KvmError, SystemError, VmmError } from '../base/errors.js';
import { Dispatcher } from './dispatcher.js';
import type { NativeAddon, NativeErrorFactory } from './native.js';

/** The addon, initialised, and the queue through which its threads reach JavaScript. */
export interface Binding {
  readonly addon: NativeAddon;
  readonly dispatcher: Dispatcher;
}

const makeError: NativeErrorFactory = (kind, name, errno, errnoNumber, detail) => {
  switch (kind) {
    case 'ioctl':
      return new KvmError(name, errno, errnoNumber, detail);
    case 'syscall':
      return new SystemError(name, errno, errnoNumber, detail);
    case 'closed':
      return new VmmError('ERR_CLOSED', `${name}: it was closed${detail === undefined ? '' : ` (${detail})`}`);
    case 'state':
      return new VmmError('ERR_STATE', `${name}: ${detail ?? 'not in this state'}`);
    case 'capability':
      return new VmmError('ERR_KVM_CAPABILITY', `${name}: ${detail ?? 'this KVM lacks it'}`);
  }
};

/** What was compiled here, else what the package brought along; only where that does not run does its installer compile. */
const PLACES = [
  ['module_root', 'build', 'Release', 'bindings'],
  ['module_root', 'prebuilds', `${process.platform}-${process.arch}`, 'bindings'],
];

let binding: Binding | undefined;

/**
 * The addon of this environment.
 *
 * @throws VmmError ERR_ADDON_MISSING when it is not built for this Node.
 */
export function loadBinding(): Binding {
  if (binding) return binding;
  let addon: NativeAddon;
  try {
    const require = createRequire(import.meta.url);
    const bindings = require('bindings') as (options: { bindings: string; try: string[][] }) => NativeAddon;
    addon = bindings({ bindings: 'vivarium', try: PLACES });
  } catch (cause) {
    throw new VmmError('ERR_ADDON_MISSING', 'the native addon could not be loaded', {
      cause,
      cure: 'run `npm run setup` in the package folder; it installs a compiler where it may and builds the addon',
    });
  }
  const dispatcher = new Dispatcher();
  dispatcher.attach(addon.initialize(makeError, () => dispatcher.dispatch()));
  binding = { addon, dispatcher };
  return binding;
}
