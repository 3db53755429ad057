/** Named machines: how one is served to the user's other processes, and how they find and reach it. */
export { backendsInside } from './backends.js';
export { carryConnections, takeCarried, type Carrier } from './carried.js';
export { copyIn, copyOut, type CopyMachine, type CopyOptions } from './copy.js';
export type { MachineEvent } from './event-schemas.js';
export { listEndedMachines, listMachines, type ListedMachine, type ListOptions } from './list.js';
export {
  checkMachineName,
  claimName,
  endedOutputOf,
  endedRecordOf,
  listRecords,
  readyFolder,
  type EndedRecord,
  type EndToRemember,
  type MachineClaim,
  type MachinePlace,
  type MachineRecord,
} from './machine-folders.js';
export { bytesOfLastLines, OutputHub } from './output-hub.js';
export {
  connect,
  RemoteMachine,
  type ConnectOptions,
  type RemoteConsole,
  type RemoteEnd,
  type ViewOutputOptions,
} from './remote-machine.js';
export type { GuestEntry, GuestEntryType } from '../agent/guest-listing.js';
export type { GuestPath } from '../agent/guest-files.js';
export type { ListeningPort } from '../agent/guest-port.js';
export type { GuestCallOptions, ReadFileOptions, WriteFileOptions } from './remote-files.js';
export type { RemoteRunOptions, RemoteRunResult } from './remote-exec.js';
export type { Backend, NetworkBackend, Stats, Summary } from './schemas.js';
export { scrapeMachines, type ScrapeOptions } from './scrape.js';
export {
  listenFor,
  MachineControl,
  serveMachine,
  type ControlSocket,
  type ServedMachine,
  type ServeOptions,
} from './serve.js';
export type { CopyReport } from './tar-files.js';
export type { ControlledMachine } from './target.js';
