/** From a backend as it is named over the control socket to the backend. */
import { type DeviceSource, fileDisk, networkSwitch, passt, qcow2Disk, tap } from '../machine/index.js';
import type { Backend } from './schemas.js';

export function backendOf(choice: Backend): DeviceSource {
  switch (choice.kind) {
    case 'file':
      return fileDisk(choice.path);
    case 'qcow2':
      return qcow2Disk(choice.path);
    case 'tap':
      return tap(choice.name);
    case 'switch':
      return networkSwitch(choice.name);
    case 'passt':
      return passt({ forwards: choice.forwards ?? [] });
  }
}
