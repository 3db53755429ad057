/**
 * Fair queueing in front of one device that several guests share: start-time fair queueing (Goyal, Vin and Cheng, 1996) with a bound
 * on what is in service. A flow that asks for less than its share gets all it asks for; the others divide the rest by weight, and
 * a flow that was idle has saved nothing up.
 *
 *   submit -> start tag = max(virtual time, the flow's last finish tag) -> wait -> least start tag first -> in service
 *             finish tag = start tag + cost / weight;   virtual time = start tag of what was started last
 *
 * It knows nothing of requests but their cost, reads no clock and starts nothing twice.
 */
const LEAST_WEIGHT = 1e-3;
const GREATEST_WEIGHT = 1e3;

interface Entry {
  readonly startTag: number;
  readonly start: () => void;
}

export class FairQueue {
  readonly #depth: number;
  /** Those with something that waits. */
  readonly #backlogged = new Set<Flow>();
  #virtualTime = 0;
  #inService = 0;
  #isStarting = false;

  /** `depth`: how many may be in service at once. @throws RangeError */
  constructor(depth: number) {
    if (!Number.isInteger(depth) || depth < 1) throw new RangeError(`a depth of ${depth}`);
    this.#depth = depth;
  }

  get inService(): number {
    return this.#inService;
  }

  /** A guest's. `weight`: its share against that of others, 0.001 to 1000. @throws RangeError */
  flow(weight = 1): Flow {
    // Tags are sums of costs over weights: with weights far apart they would no longer differ.
    if (!(weight >= LEAST_WEIGHT && weight <= GREATEST_WEIGHT)) {
      throw new RangeError(`a weight of ${weight}, which is not from ${LEAST_WEIGHT} to ${GREATEST_WEIGHT}`);
    }
    return new Flow(weight, {
      virtualTime: () => this.#virtualTime,
      waits: (flow) => {
        this.#backlogged.add(flow);
        this.#startMore();
      },
      waitsNoMore: (flow) => void this.#backlogged.delete(flow),
      ended: () => {
        this.#inService--;
        this.#startMore();
      },
    });
  }

  /** What is started may end at once, and submit more: then the loop that runs goes on with it. */
  #startMore(): void {
    if (this.#isStarting) return;
    this.#isStarting = true;
    try {
      while (this.#inService < this.#depth) {
        let next: Flow | undefined;
        for (const flow of this.#backlogged) if (next === undefined || flow.nextTag < next.nextTag) next = flow;
        if (next === undefined) break;
        this.#virtualTime = next.nextTag;
        this.#inService++;
        next.startNext();
      }
    } finally {
      this.#isStarting = false;
    }
  }
}

/** The queue, as a flow knows it. */
interface QueueEnd {
  virtualTime(): number;
  waits(flow: Flow): void;
  waitsNoMore(flow: Flow): void;
  ended(): void;
}

export class Flow {
  readonly #weight: number;
  readonly #queue: QueueEnd;
  #entries: Entry[] = [];
  /** Of `#entries`, those before this one have been started. */
  #first = 0;
  #lastFinishTag = 0;

  constructor(weight: number, queue: QueueEnd) {
    this.#weight = weight;
    this.#queue = queue;
  }

  get waiting(): number {
    return this.#entries.length - this.#first;
  }

  get nextTag(): number {
    return this.#entries[this.#first]!.startTag;
  }

  /** Calls `start` when it is this one's turn, possibly now; ended() has to follow once for each. `cost`: above 0, any unit. */
  submit(cost: number, start: () => void): void {
    const startTag = Math.max(this.#queue.virtualTime(), this.#lastFinishTag);
    this.#lastFinishTag = startTag + cost / this.#weight;
    this.#entries.push({ startTag, start });
    this.#queue.waits(this);
  }

  /** One that was started has ended. */
  ended(): void {
    this.#queue.ended();
  }

  /** The queue's. */
  startNext(): void {
    const { start } = this.#entries[this.#first++]!;
    if (this.#first === this.#entries.length) {
      this.#entries = [];
      this.#first = 0;
      this.#queue.waitsNoMore(this);
    } else if (this.#first > 1024) {
      this.#entries.splice(0, this.#first);
      this.#first = 0;
    }
    start();
  }
}
