/** The command line of a `run` inside the embedded host. */
import { formatLimits } from './limit-option.js';
import { formatNic } from './nic-option.js';
import type { Images } from './outcome.js';
import type { RunOptions } from './run-options.js';

/** `inner` gives the path that means the same file there. */
export function innerArguments(options: RunOptions, images: Images, inner: (path: string) => string): string[] {
  const argv = ['run', '--kvm', 'native', '--kernel', inner(images.kernel), '--initrd', inner(images.initrd)];
  argv.push('--cpus', String(options.cpus), '--memory', String(options.memoryBytes), '--pit', options.pit);
  for (const { path, id, readOnly, format, limits } of options.disks) {
    const more = [`format=${format}`, `id=${id}`, ...(readOnly ? ['ro'] : []), ...formatLimits(limits)];
    argv.push(`--disk=${[inner(path), ...more].join(',')}`);
  }
  for (const nic of options.nics) argv.push(`--nic=${formatNic(nic)}`);
  argv.push('--stall-timeout', String(options.stallTimeoutMs / 1000));
  if (options.cmdline !== undefined) argv.push(`--cmdline=${options.cmdline}`);
  if (options.append !== undefined) argv.push(`--append=${options.append}`);
  if (options.control !== undefined) argv.push(`--control=${JSON.stringify(options.control)}`);
  if (options.qemuAgent) argv.push('--qemu-agent');
  if (options.quiet) argv.push('--quiet');
  if (options.json) argv.push('--json');
  if (options.command !== undefined) argv.push('--', ...options.command);
  return argv;
}
