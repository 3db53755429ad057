/** What the calls of a machine take, and its memory as users see it. Types only. */

/** Guest memory for users: copies, checked. */
export interface MachineMemory {
  readonly sizeBytes: number;
  /** A copy of `length` bytes at a guest physical address. @throws VmmError ERR_GUEST_MEMORY, ERR_CLOSED */
  read(gpa: number, length: number): Uint8Array;
  /** @throws VmmError ERR_GUEST_MEMORY, ERR_CLOSED */
  write(gpa: number, bytes: Uint8Array): void;
  /** From now on what is written is noted, by guest and devices; it costs the guest its first write to each page after each take. */
  watchWrites(): WriteWatch;
}

export interface WriteWatch {
  /** Since the last take, or the beginning. @throws VmmError ERR_CLOSED after the machine's close */
  take(): WrittenPages;
  /** Idempotent. */
  close(): void;
}

export interface WrittenPages {
  /** Of 4 KiB. */
  readonly pages: number;
  /** How many of each group of 64 KiB, in the order of guest memory: 0 to 16. */
  readonly byGroup: Uint8Array;
}

/** For a call that an AbortSignal may end. */
export interface CallOptions {
  readonly signal?: AbortSignal;
}

export interface StopOptions extends CallOptions {
  /** How long the guest may take to power off. Default 30 000. */
  readonly timeoutMs?: number;
}

export interface PauseOptions extends CallOptions {
  /** 'count' (the default): the guest's clock is to show the pause afterwards; 'freeze': its time stands still. */
  readonly clock?: 'count' | 'freeze';
}
