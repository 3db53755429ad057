/**
 * Progress of work whose end is known, on stderr: a bar with rate and estimate on a terminal, a line for each tenth
 * elsewhere, an event for each tenth with `--json`. What it draws is gone when the work ends.
 */
import type { CommandIo } from '../base/command-io.js';
import { formatSize } from '../base/units.js';

export interface Progress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly ratePerSecond: number;
}

/** Where progress is shown. */
export type ProgressView = Pick<ProgressBar, 'show' | 'end'>;

const BAR_CELLS = 24;
const STEPS = 10;
const CLEAR_LINE = '\r\x1b[K';

export class ProgressBar {
  readonly #io: CommandIo;
  readonly #title: string;
  readonly #json: boolean;
  #drawn = '';
  #step = 0;

  constructor(io: CommandIo, title: string, options: { readonly json: boolean }) {
    this.#io = io;
    this.#title = title;
    this.#json = options.json;
  }

  show(progress: Progress): void {
    const { bytesDone, bytesTotal } = progress;
    const part = bytesTotal > 0 ? Math.min(1, bytesDone / bytesTotal) : 1;
    if (this.#io.stderrIsTerminal && !this.#json) {
      const full = Math.round(part * BAR_CELLS);
      const bar = `${'#'.repeat(full)}${'.'.repeat(BAR_CELLS - full)}`;
      this.#draw(`${this.#title} [${bar}] ${describe(part, progress)}`);
      return;
    }
    const step = Math.floor(part * STEPS);
    if (step === this.#step) return;
    this.#step = step;
    if (this.#json) this.#write(`${JSON.stringify({ event: 'progress', ...progress })}\n`);
    else this.#write(`vivarium: ${this.#title} ${describe(part, progress)}\n`);
  }

  /** Takes the bar away. Idempotent. */
  end(): void {
    if (this.#drawn !== '') this.#write(CLEAR_LINE);
    this.#drawn = '';
  }

  #draw(line: string): void {
    const { columns = 80 } = this.#io.terminalSize() ?? {};
    const fitting = line.slice(0, Math.max(1, columns - 1));
    if (fitting === this.#drawn) return;
    this.#drawn = fitting;
    this.#write(`${CLEAR_LINE}${fitting}`);
  }

  #write(text: string): void {
    if (!this.#io.stderr.destroyed && this.#io.stderr.writable) this.#io.stderr.write(text);
  }
}

/** Such as "45 %, 1 GiB/s, 12 s left". */
function describe(part: number, { bytesDone, bytesTotal, ratePerSecond }: Progress): string {
  const percent = `${Math.floor(part * 100)} %`;
  if (!(ratePerSecond > 0)) return percent;
  const seconds = Math.ceil((bytesTotal - bytesDone) / ratePerSecond);
  const left = seconds > 0 ? `, ${seconds} s left` : '';
  return `${percent}, ${formatSize(Math.round(ratePerSecond))}/s${left}`;
}
