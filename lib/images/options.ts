/**
 * What every maker of an image takes: where the cache is, who hears of progress, what stops it.
 * Also where the sources of the guest's own files lie, which is the same seen from lib/ and from dist/.
 */
import { fileURLToPath } from 'node:url';
import type { Logger } from '../base/logger.js';
import { Cache } from './cache.js';

export interface ImageOptions {
  /** The user's cache folder by default. */
  readonly cache?: Cache;
  readonly signal?: AbortSignal | undefined;
  /** Hears one line for each step that takes time; nothing when the image is in the cache. */
  readonly log?: Logger;
  /** Looks for a newer version instead of taking what the cache has. */
  readonly refresh?: boolean;
}

/** The package's folder guest/: init, the agent's source. */
export const GUEST_FOLDER = fileURLToPath(new URL('../../guest/', import.meta.url));
