/** The dashboard: a page on loopback with this user's machines, their consoles, their figures and their snapshots. */
export { startDashboard, type Dashboard, type DashboardOptions } from './server.js';
export type { DashboardWorld, RestoreOptions } from './world.js';
