/**
 * A vitest reporter that counts: passed, failed and skipped tests, each skip with its reason, written as JSON to the file
 * that VIVARIUM_TEST_COUNTS names. What is lost (a file that does not load, an unhandled error, a test whose worker died)
 * counts as failed. The text for people comes from vitest's own reporter beside it.
 */
import { writeFileSync } from 'node:fs';
import process from 'node:process';

export default class CountReporter {
  onTestRunEnd(modules, unhandledErrors) {
    const counts = { passed: 0, failed: 0, skipped: 0, failures: [], skips: [] };
    for (const module of modules) {
      for (const error of module.errors()) {
        counts.failed++;
        counts.failures.push(`${module.relativeModuleId}: ${error.message}`);
      }
      for (const test of module.children.allTests()) {
        const result = test.result();
        const name = `${module.relativeModuleId}: ${test.fullName}`;
        if (result.state === 'passed') {
          counts.passed++;
        } else if (result.state === 'skipped') {
          counts.skipped++;
          counts.skips.push({ name, reason: result.note ?? 'no reason given' });
        } else {
          counts.failed++;
          counts.failures.push(result.state === 'pending' ? `${name} (never ended)` : name);
        }
      }
      for (const suite of module.children.allSuites()) {
        for (const error of suite.errors()) {
          counts.failed++;
          counts.failures.push(`${module.relativeModuleId}: ${suite.fullName}: ${error.message}`);
        }
      }
    }
    for (const error of unhandledErrors) {
      counts.failed++;
      counts.failures.push(`unhandled: ${error.message}`);
    }
    if (process.env.VIVARIUM_TEST_COUNTS) writeFileSync(process.env.VIVARIUM_TEST_COUNTS, JSON.stringify(counts));
  }
}
