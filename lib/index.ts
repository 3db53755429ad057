/**
 * The public surface of vivarium. What is exported here is promised; everything else may change.
 */
export { Machine } from './machine/index.js';
export type {
  BootImage,
  CallOptions,
  EndReason,
  EndStatus,
  FlatBoot,
  JsonValue,
  KernelBoot,
  MachineConsole,
  MachineMemory,
  MachineOptions,
  MachineState,
  MultibootBoot,
  PortDevice,
  StopOptions,
  WaitForOptions,
} from './machine/index.js';
export type { AccessSize, BusDevice } from './bus/index.js';
export { AbortError, KvmError, SystemError, VmmError, type VmmErrorCode } from './base/errors.js';
