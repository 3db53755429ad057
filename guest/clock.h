/* The guest's clocks and random numbers, as the agent sets them for a guest that was cloned or whose host knows better.
 */
#ifndef VIVARIUM_CLOCK_H
#define VIVARIUM_CLOCK_H

#include <stddef.h>
#include <stdint.h>

enum { MAX_SEED_BYTES = 64 };

uint64_t monotonic_ns(void);

/* It was `unix_ns` when monotonic_ns() was `then_ns`: however long that took to arrive. */
void set_clock(uint64_t unix_ns, uint64_t then_ns);

/* What its random numbers come from must not be what another clone has. At most MAX_SEED_BYTES. */
void reseed(const uint8_t* bytes, size_t length);

#endif
