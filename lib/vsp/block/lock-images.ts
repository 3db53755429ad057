/** Locks on disk images for who has them used by somebody else: the command, for a machine in the embedded host. */
import { openImageFile, type ImageFile } from './image-file.js';

/**
 * Takes the lock of each image, as a disk on it would, and keeps it until the result is called.
 *
 * @throws VmmError ERR_DISK_LOCKED, ERR_DISK_IMAGE; then none is locked.
 */
export async function lockImages(
  images: readonly { readonly path: string; readonly readOnly: boolean }[],
): Promise<() => Promise<void>> {
  const files: ImageFile[] = [];
  const release = async (): Promise<void> => {
    await Promise.all(files.map((file) => file.close()));
  };
  try {
    for (const { path, readOnly } of images) files.push(await openImageFile(path, { readOnly }));
    return release;
  } catch (error) {
    await release();
    throw error;
  }
}
