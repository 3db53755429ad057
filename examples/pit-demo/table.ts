/** The figures of a demonstration as a table for a terminal. Pure. */
import type { Summary } from './summary.js';

const HEADINGS = ['policy', 'greatest lag', 'lag at the end', 'back within a tick', 'most in 100 ms', 'own work kept'];

/** Columns wide enough for what is in them; the first to the left, numbers to the right. */
export function drawTable(summaries: readonly Summary[]): string {
  const rows = [HEADINGS, ...summaries.map(cells)];
  const widths = HEADINGS.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) => row.map((cell, column) => pad(cell, widths[column]!, column === 0)).join('  '))
    .map((line) => line.trimEnd())
    .join('\n');
}

function cells(summary: Summary): string[] {
  return [
    summary.policy,
    `${Math.round(summary.greatestLagMs)} ms`,
    `${Math.round(summary.endLagMs)} ms`,
    summary.returnMs === undefined ? 'never' : `${Math.round(summary.returnMs)} ms`,
    String(summary.greatestIn100Ms),
    `${Math.round(summary.workShare * 100)} %`,
  ];
}

function pad(cell: string, width: number, left: boolean): string {
  return left ? cell.padEnd(width) : cell.padStart(width);
}
