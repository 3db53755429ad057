/**
 * The public surface of vivarium. What is exported here is promised; everything else may change.
 */
import { linuxSupport } from './host/index.js';
import { setLinuxProbe } from './machine/index.js';

export { Machine } from './machine/index.js';
export type {
  BootImage,
  CallOptions,
  ConsolePortOptions,
  DeviceOptions,
  DeviceSource,
  DiskOptions,
  EndReason,
  EndStatus,
  EntropyOptions,
  FlatBoot,
  JsonValue,
  KernelBoot,
  LentDevice,
  MachineConsole,
  MachineMemory,
  MachineOptions,
  MachinePit,
  MachineState,
  MultibootBoot,
  NicOptions,
  PauseOptions,
  PortDevice,
  RefreshReport,
  RestoreCost,
  RestoreOptions,
  RestoreOverrides,
  RestorePhases,
  Snapshot,
  SnapshotOptions,
  SnapshotStats,
  StopOptions,
  WaitForOptions,
} from './machine/index.js';
export { snapshots } from './snapshot/index.js';
export type {
  BrokenSnapshot,
  DeleteOptions,
  ReadOptions,
  SnapshotInfo,
  SnapshotNode,
  SnapshotProgress,
} from './snapshot/index.js';
export { catchUpPolicy, discardPolicy, reinjectPolicy } from './time/index.js';
export type {
  FeedbackOptions,
  PitEvents,
  PitOptions,
  PitPolicy,
  PitStatus,
  PolicyDecision,
  PolicyInput,
  PolicyName,
} from './time/index.js';
export { createQcow2Overlay, faultyDisk, fileDisk, memoryDisk, qcow2Disk, sharedDisk } from './vsp/index.js';
export { networkSwitch, passt, recordedNetwork, sharedNetwork, tap } from './vsp/index.js';
export {
  callbackConsole,
  fileConsole,
  hostEntropy,
  stdioConsole,
  streamConsole,
  unixSocketConsole,
} from './vsp/index.js';
export type {
  BackendDescription,
  BlockSource,
  CallbackConsole,
  ConsoleBackend,
  ConsoleHostEnd,
  ConsoleSize,
  ConsoleSource,
  DeviceContract,
  DirectionLimits,
  EntropyBackend,
  EntropySource,
  Fault,
  FaultPlan,
  FaultRule,
  FileDiskOptions,
  FunctionReport,
  MemoryDisk,
  NetAbilities,
  NetBackend,
  NetFrame,
  NetHostEnd,
  NetOpenContext,
  NetSource,
  NetworkSwitchOptions,
  PasstForward,
  PasstOptions,
  Qcow2DiskOptions,
  Qcow2OverlayOptions,
  RebindOptions,
  RebindReport,
  SharedDisk,
  SharedDiskOptions,
  SharedGuestOptions,
  SharedNetwork,
  SharedNetworkGuestOptions,
  SharedNetworkOptions,
  StdioStreams,
  StreamConsoleOptions,
  TakeBackOptions,
  TakeNetworkBackOptions,
  TapOptions,
  TrafficLimits,
} from './vsp/index.js';
export type { AccessSize, BusDevice } from './bus/index.js';
export { AbortError, GuestFileError, KvmError, SystemError, VmmError, type VmmErrorCode } from './base/errors.js';
export type { Logger, LogLevel } from './base/logger.js';
export { pinoLogger, type PinoInstance } from './base/pino-logger.js';
export type { ExitProbe, RequestProbe, TickProbe } from './base/probes.js';
export { debianRoot, type DebianRoot } from './images/debian-root.js';
export { defaultInitramfs } from './images/initramfs.js';
export { defaultKernel, type KernelImage } from './images/kernel.js';
export type { ImageOptions } from './images/options.js';
export { embeddedHost as host, type HostStatus, type ScriptOptions, type ScriptResult } from './host/index.js';

export { connect, listMachines, RemoteMachine, scrapeMachines, serveMachine } from './control/index.js';
export type {
  ConnectOptions,
  GuestCallOptions,
  GuestEntry,
  GuestEntryType,
  GuestPath,
  ListedMachine,
  ListeningPort,
  MachineEvent,
  MachineRecord,
  ReadFileOptions,
  RemoteConsole,
  RemoteEnd,
  RemoteRunOptions,
  RemoteRunResult,
  ScrapeOptions,
  ServedMachine,
  ServeOptions,
  ViewOutputOptions,
  WriteFileOptions,
} from './control/index.js';

// The machine room can't import the host room, which stands after it; here the two are introduced.
setLinuxProbe(linuxSupport);
