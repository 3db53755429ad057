/**
 * The pictures of docs/how-snapshots-work.md: who does what when, for an instant snapshot and for a lazy restore. Drawings of the order of
 * things, not to scale: what each takes is measured by `npm run bench -- snapshot` and `restore`.
 */
import { Colour, line, picture, rect, text } from './svg.js';

interface Span {
  readonly from: number;
  readonly to: number;
  readonly says?: string;
  readonly colour: Colour;
}

interface Lane {
  readonly name: string;
  readonly spans: readonly Span[];
}

interface Moment {
  readonly at: number;
  readonly says: string;
}

const { GREEN, ORANGE, PURPLE, BLUE, GREY } = Colour;
const [WIDTH, LEFT, RIGHT, TOP, ROW] = [860, 150, 836, 84, 52];
const x = (at: number) => LEFT + (at / 100) * (RIGHT - LEFT);

function timeline(title: string, lanes: readonly Lane[], moments: readonly Moment[], notes: readonly string[]): string {
  const bottom = TOP + lanes.length * ROW;
  return picture(title, WIDTH, bottom + 16 + notes.length * 17, [
    ...lanes.flatMap(({ name, spans }, index) => {
      const y = TOP + index * ROW;
      return [
        text(LEFT - 12, y + 24, name, { anchor: 'end' }),
        line(LEFT, y + 20, RIGHT, y + 20),
        ...spans.flatMap(({ from, to, says, colour }) => [
          rect(x(from), y + 10, x(to) - x(from), 20, `fill="${colour}" rx="3"`),
          ...(says === undefined ? [] : [text(x((from + to) / 2), y + 44, says, { anchor: 'middle', style: 'small' })]),
        ]),
      ];
    }),
    ...moments.flatMap(({ at, says }) => [
      line(x(at), TOP - 16, x(at), bottom - 4, ORANGE, 1.5),
      text(x(at), TOP - 22, says, { anchor: 'middle', colour: ORANGE }),
    ]),
    ...notes.map((note, index) => text(24, bottom + 16 + index * 17, note, { style: 'small' })),
  ]);
}

export function drawInstant(): string {
  const stop = [24, 32] as const;
  return timeline(
    'An instant snapshot: the guest stands for its CPUs and devices alone',
    [
      {
        name: 'vCPUs',
        spans: [
          { from: 0, to: stop[0], says: 'the guest runs', colour: GREEN },
          { from: stop[1], to: 44, colour: GREEN },
          { from: 44, to: 46.5, says: 'a write waits', colour: ORANGE },
          { from: 46.5, to: 60, colour: GREEN },
          { from: 60, to: 62.5, says: 'another', colour: ORANGE },
          { from: 62.5, to: 100, says: 'the guest runs', colour: GREEN },
        ],
      },
      {
        name: 'JavaScript',
        spans: [{ from: stop[0], to: stop[1], says: 'devices rest, disks are cut, state', colour: PURPLE }],
      },
      {
        name: 'write protection',
        spans: [
          { from: 10, to: stop[0], says: 'ahead, group by group', colour: GREY },
          { from: stop[0], to: stop[1], colour: ORANGE },
          { from: stop[1], to: 84, says: 'let go as groups are saved', colour: GREY },
        ],
      },
      {
        name: 'pager',
        spans: [
          { from: 33, to: 43, colour: GREY },
          { from: 44, to: 46.5, says: 'copies that group', colour: BLUE },
          { from: 48, to: 59, colour: GREY },
          { from: 60, to: 62.5, colour: BLUE },
          { from: 64, to: 84, says: 'hands over what nobody writes to', colour: GREY },
        ],
      },
      {
        name: 'saving pool',
        spans: [{ from: 34, to: 88, says: 'zero, duplicate or zstd; checksum; pwrite', colour: PURPLE }],
      },
      {
        name: 'folder',
        spans: [
          { from: 8, to: 88, says: '.NAME.partial-…', colour: GREY },
          { from: 93, to: 100, says: 'NAME', colour: GREEN },
        ],
      },
    ],
    [
      { at: stop[0] + 1, says: 'the instant' },
      { at: 93, says: 'renamed' },
    ],
    [
      'Without huge pages memory is protected ahead, as here, and at the stop again where the guest has written; with them all of it at the stop.',
    ],
  );
}

export function drawLazy(): string {
  return timeline(
    'A lazy restore: the guest runs before its memory is there',
    [
      { name: 'JavaScript', spans: [{ from: 2, to: 14, says: 'checks, devices, state', colour: PURPLE }] },
      {
        name: 'vCPUs',
        spans: [
          { from: 16, to: 27, colour: GREEN },
          { from: 27, to: 30, says: 'a touch waits', colour: ORANGE },
          { from: 30, to: 52, colour: GREEN },
          { from: 52, to: 54, says: 'and another', colour: ORANGE },
          { from: 54, to: 100, says: 'the guest runs', colour: GREEN },
        ],
      },
      {
        name: 'pager',
        spans: [
          { from: 27, to: 30, says: 'reads that group, checks it, puts it in', colour: BLUE },
          { from: 52, to: 54, colour: BLUE },
        ],
      },
      {
        name: 'fill',
        spans: [
          { from: 17, to: 38, says: 'the hot set first', colour: BLUE },
          { from: 38, to: 86, says: 'then the rest, 2 MiB at once where it can', colour: GREY },
        ],
      },
      { name: 'snapshot', spans: [{ from: 0, to: 86, says: 'has to stay readable', colour: GREY }] },
    ],
    [
      { at: 16, says: 'running' },
      { at: 38, says: 'hotLoaded' },
      { at: 86, says: 'complete' },
    ],
    ['The three moments are the promises of clone.restored.'],
  );
}
