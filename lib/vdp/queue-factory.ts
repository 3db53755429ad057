/** How the transport's queues are made: see MakeQueue. Until split queues are there, no queue can be used. */
import type { MakeQueue } from './virtio-lifecycle.js';

export const makeSplitQueue: MakeQueue = ({ index }) => `queue ${index}: there are no queues yet`;
