/** A megabyte to a stock guest over its console on pipes, and back; `npm test` carries less. */
import { it } from 'vitest';
import { expectCarried } from '../lib/console-bytes.js';

it('carries 1 MB to the guest and 1 MB back unharmed', { timeout: 1_220_000 }, () => expectCarried(1_000_000, 1200));
