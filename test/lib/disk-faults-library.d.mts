/** See disk-faults-library.mjs. */
export function diskFaultsLibrary(): string;
