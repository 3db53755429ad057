/**
 * For tests: frames whose bytes are overwritten as soon as the call that they were given in returns, as whoever fills the same room
 * again does (contract.ts). Who keeps such a frame without a copy has nothing but 0x5a, which no test takes for its frame.
 */
import type { NetBackend, NetFrame, NetGuestEnd, NetHostEnd } from './contract.js';

const SCRIBBLE = 0x5a;

/** Calls with copies of the frames in one room, as proxies and taps have them, and overwrites them afterwards. */
export function lend<T>(frames: readonly NetFrame[], call: (lent: readonly NetFrame[]) => T): T {
  const room = new Uint8Array(frames.reduce((sum, { bytes }) => sum + bytes.length, 0));
  let at = 0;
  const lent = frames.map((frame) => {
    const bytes = room.subarray(at, at + frame.bytes.length);
    bytes.set(frame.bytes);
    at += frame.bytes.length;
    return { ...frame, bytes };
  });
  try {
    return call(lent);
  } finally {
    room.fill(SCRIBBLE);
  }
}

/** A service, a backend or a link whose frames are lent to it. */
export function lendingTo<T extends { send(frames: readonly NetFrame[]): unknown }>(taker: T): T {
  return withMethods(taker, { send: (frames: readonly NetFrame[]) => lend(frames, (lent) => taker.send(lent)) });
}

/** The end of a backend's user, or a guest's, to which frames are lent. */
export function lendingHost<T extends Pick<NetHostEnd, 'receive'> | Pick<NetGuestEnd, 'receive'>>(end: T): T {
  return withMethods(end, {
    receive: (frames: readonly NetFrame[]) => lend(frames, (lent) => end.receive(lent)),
  });
}

/** A backend that is lent frames and lends frames. */
export function lendingBackend(backend: NetBackend): NetBackend {
  return withMethods(lendingTo(backend), { start: (host: NetHostEnd) => backend.start(lendingHost(host)) });
}

/** `methods` in front of the target's own, which go on being called on it. */
function withMethods<T extends object>(target: T, methods: object): T {
  return new Proxy(target, {
    get(_, name) {
      if (Object.hasOwn(methods, name)) return Reflect.get(methods, name) as unknown;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
    set: (_, name, value) => Reflect.set(target, name, value, target),
  });
}
