/** Starts a backend that another one may follow: only as long as it is the one in use does it reach whoever stands on it. */
import type { NetBackend, NetHostEnd } from './contract.js';

/**
 * @param isCurrent whether it is still the one in use.
 * @returns what it has said of its link meanwhile, up where it said nothing: one change, or none, of what the one before said.
 */
export function startBackend(backend: NetBackend, host: NetHostEnd, isCurrent: () => boolean): boolean {
  let isStarting = true;
  let isUp = true;
  backend.start({
    receive: (frames) => {
      if (isCurrent()) host.receive(frames);
    },
    writable: () => {
      if (isCurrent()) host.writable();
    },
    link: (up) => {
      if (!isCurrent()) return;
      if (isStarting) isUp = up;
      else host.link(up);
    },
  });
  isStarting = false;
  return isUp;
}
