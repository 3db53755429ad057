/** The types of a file that the server gives out of the package (page-files.ts). */
export * from '@xterm/xterm';
