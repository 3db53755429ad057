import { expect, it } from 'vitest';
import { Slab } from './slab.js';

it('gives pieces that overlap nowhere, all zero, of any length', () => {
  const slab = new Slab();
  const lengths = Array.from({ length: 400 }, (_, index) => [0, 1, 60, 1514, 8192, 8193, 70_000][index % 7]!);
  const pieces = lengths.map((length, index) => {
    const piece = slab.take(length);
    expect(piece.every((byte) => byte === 0)).toBe(true);
    return piece.fill((index % 255) + 1);
  });
  pieces.forEach((piece, index) => {
    expect(piece.length).toBe(lengths[index]);
    expect(piece.every((byte) => byte === (index % 255) + 1)).toBe(true);
  });
});
