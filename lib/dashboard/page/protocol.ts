/**
 * What goes over the one WebSocket of a dashboard's page: messages of JSON as texts both ways, and consoles as binary frames, whose first four
 * bytes are the number of the console, big endian, chosen by the page. Types alone, for the page and the server alike.
 */

/** How often a watched machine's counters come: a glance at each, or all of the one that is looked at. */
export type Beat = 'slow' | 'fast';

export interface MachineRow {
  readonly name: string;
  /** Different for each machine that ever had the name. */
  readonly id: string;
  readonly state: string;
  readonly pid: number;
  readonly host: string;
  /** ISO 8601. */
  readonly since: string;
}

export interface SnapshotRow {
  readonly name: string;
  readonly createdMs: number;
  readonly memoryBytes: number;
  readonly fileBytes: number;
  /** It has a parent, which is not in the folder. */
  readonly parentElsewhere: boolean;
  readonly children: readonly SnapshotRow[];
}

export interface FailureText {
  readonly code: string;
  readonly message: string;
  readonly cure?: string;
}

/** What the page may ask to be done; each has one answer. */
export type Ask =
  | { readonly what: 'pause' | 'resume' | 'stop' | 'kill'; readonly name: string }
  | {
      readonly what: 'save';
      readonly name: string;
      /** The name of the new folder. */
      readonly snapshot: string;
      readonly mode: 'live' | 'instant' | 'paused';
      readonly parent?: string | undefined;
    }
  | { readonly what: 'restore'; readonly snapshot: string; readonly name: string }
  | { readonly what: 'delete'; readonly snapshot: string };

export type PageMessage =
  | { readonly type: 'watch' | 'unwatch'; readonly name: string; readonly beat: Beat }
  | { readonly type: 'open-console'; readonly channel: number; readonly name: string }
  | { readonly type: 'close-console'; readonly channel: number }
  | { readonly type: 'ask'; readonly id: number; readonly ask: Ask };

export type ServerMessage =
  /** The first one. `snapshots`: the folder, where there is one. */
  | { readonly type: 'hello'; readonly snapshots: string | null }
  | { readonly type: 'machines'; readonly machines: readonly MachineRow[] }
  | { readonly type: 'stats'; readonly name: string; readonly beat: Beat; readonly stats: WatchedStats }
  | { readonly type: 'watch-ended'; readonly name: string; readonly beat: Beat; readonly failure?: FailureText }
  | { readonly type: 'console-ended'; readonly channel: number; readonly failure?: FailureText }
  /** So much of what was typed was dropped: the guest does not take it. */
  | { readonly type: 'console-full'; readonly channel: number; readonly lostBytes: number }
  | {
      readonly type: 'snapshots';
      readonly roots: readonly SnapshotRow[];
      readonly broken: readonly { readonly name: string; readonly message: string }[];
      /** Why the folder can't be read. */
      readonly failure?: FailureText;
    }
  | { readonly type: 'progress'; readonly id: number; readonly text: string }
  | { readonly type: 'answer'; readonly id: number; readonly failure?: FailureText };

/** Of the counters of a machine (Stats of the control socket) what the page draws. */
export interface WatchedStats {
  readonly state: string;
  /** Monotonic; rates are differences by it. */
  readonly atMs: number;
  readonly cpus: readonly { readonly exits: number; readonly byReason: Readonly<Record<string, number>> }[];
  readonly memoryBytes: number;
  readonly devices: readonly WatchedDevice[];
  /** A PitStatus, of which members may be missing. */
  readonly pit: unknown;
  readonly process: { readonly cpuMs: number; readonly rssBytes: number };
  readonly saves?: readonly { readonly dir: string; readonly bytesDone: number; readonly bytesTotal: number }[];
  readonly viewers: number;
  readonly writes?: { readonly pages: number; readonly bucketBytes: number; readonly buckets: readonly number[] };
}

export interface WatchedDevice {
  readonly id: string;
  readonly class: string;
  readonly functions: Readonly<
    Record<string, { readonly by: string; readonly calls: number; readonly errors: number; readonly bytes: number }>
  >;
}

/** Bytes of a console's frame that are its number. */
export const CHANNEL_BYTES = 4;
