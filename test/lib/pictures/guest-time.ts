/**
 * The picture of docs/guest-time.md: a 100 Hz guest that stands still for a while, under the real controller over the simulated PIT of
 * lib/time/testing.ts. Every mark is a tick that the guest took, every point of the lines a look at `vm.pit.status()`.
 */
import { controlledGuest } from '../../../lib/time/testing-controller.js';
import { Colour, line, picture, polyline, rect, text } from './svg.js';

const MS = 1_000_000n;
const COUNT_100_HZ = 11932;
const BEFORE_MS = 100;
const STOP_MS = 150;
const AFTER_MS = 450;
const END_MS = BEFORE_MS + STOP_MS + AFTER_MS;

interface Look {
  readonly atMs: number;
  readonly owed: number;
  readonly firingHz: number;
  readonly phase: string;
}

/** What a run of the controller came to. */
export interface TimeRun {
  readonly looks: readonly Look[];
  /** When the guest took a tick, in ms. */
  readonly takenMs: readonly number[];
}

export async function runGuest(): Promise<TimeRun> {
  const { sim, controller } = await controlledGuest({ count: COUNT_100_HZ });
  const startNs = sim.clock.nowNs();
  const sinceMs = (ns: bigint) => Number(ns - startNs) / 1e6;
  const looks: Look[] = [];
  for (let ms = 0; ms < END_MS; ms++) {
    if (ms === BEFORE_MS) {
      sim.pause(true);
      controller.pause({ clock: 'count' });
    }
    if (ms === BEFORE_MS + STOP_MS) {
      sim.pause(false);
      controller.resume();
    }
    const { owed, firingHz, phase } = controller.status();
    looks.push({ atMs: sinceMs(sim.clock.nowNs()), owed, firingHz, phase });
    await sim.run(MS);
  }
  const takenMs = sim.takenAtNs.map(sinceMs).filter((ms) => ms >= 0);
  controller.close();
  sim.close();
  return { looks, takenMs };
}

const [WIDTH, HEIGHT] = [860, 392];
const [LEFT, RIGHT] = [96, 836];
const x = (ms: number) => LEFT + (ms / END_MS) * (RIGHT - LEFT);
const [TOP, MARKS, OWED, RATE, BOTTOM] = [62, 74, 224, 330, 346];
const MOST_OWED = 20;
const MOST_HZ = 240;

export function drawGuestTime({ looks, takenMs }: TimeRun): string {
  const catching = looks.filter(({ phase }) => phase === 'catch-up');
  const [from, to] = [catching[0]!.atMs, catching.at(-1)!.atMs];
  const owedY = (owed: number) => OWED - (owed / MOST_OWED) * 84;
  const rateY = (hz: number) => RATE - (hz / MOST_HZ) * 72;
  const expectedMs = Array.from({ length: END_MS / 10 }, (_, tick) => (takenMs[0]! % 10) + tick * 10);
  return picture(
    `A 100 Hz guest that is stopped for ${STOP_MS} ms gets its ticks back, sooner than one a period`,
    WIDTH,
    HEIGHT,
    [
      rect(x(BEFORE_MS), TOP, x(BEFORE_MS + STOP_MS) - x(BEFORE_MS), BOTTOM - TOP, 'class="band"'),
      text(x(BEFORE_MS + STOP_MS / 2), TOP - 8, 'stopped', { anchor: 'middle' }),
      rect(x(from), TOP, x(to) - x(from), BOTTOM - TOP, `fill="${Colour.GREEN}" opacity="0.12"`),
      text(x((from + to) / 2), TOP - 8, 'catch-up', { anchor: 'middle', colour: Colour.GREEN }),
      text(x((to + END_MS) / 2), TOP - 8, 'nominal', { anchor: 'middle' }),
      text(LEFT - 10, MARKS + 14, 'expected', { anchor: 'end' }),
      ...expectedMs.map((ms) => line(x(ms), MARKS, x(ms), MARKS + 20, Colour.GREY, 1.5)),
      text(LEFT - 10, MARKS + 42, 'delivered', { anchor: 'end' }),
      ...takenMs.map((ms) => line(x(ms), MARKS + 28, x(ms), MARKS + 48, Colour.GREEN, 1.5)),
      text(LEFT, OWED - 89, 'owed, in ticks', { colour: Colour.ORANGE }),
      ...[0, 10, 20].flatMap((owed) => [
        line(LEFT, owedY(owed), RIGHT, owedY(owed)),
        text(LEFT - 10, owedY(owed) + 4, String(owed), { anchor: 'end', style: 'small' }),
      ]),
      polyline(
        looks.map(({ atMs, owed }) => [x(atMs), owedY(owed)] as const),
        Colour.ORANGE,
      ),
      text(LEFT, RATE - 72, 'the PIT fires, times a second', { colour: Colour.BLUE }),
      ...[0, 100, 200].flatMap((hz) => [
        line(LEFT, rateY(hz), RIGHT, rateY(hz)),
        text(LEFT - 10, rateY(hz) + 4, String(hz), { anchor: 'end', style: 'small' }),
      ]),
      polyline(
        looks.map(({ atMs, firingHz }) => [x(atMs), rateY(firingHz)] as const),
        Colour.BLUE,
      ),
      ...Array.from({ length: END_MS / 100 + 1 }, (_, at) =>
        text(x(at * 100), BOTTOM + 18, String(at * 100), { anchor: 'middle', style: 'small' }),
      ),
      text(RIGHT, BOTTOM + 36, 'ms; drawn from a run of lib/time over a simulated PIT', {
        anchor: 'end',
        style: 'small',
      }),
    ],
  );
}
