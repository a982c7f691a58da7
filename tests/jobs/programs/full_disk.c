// Preloaded into mrp: file systems look full below the folder FULL_DISK_BELOW, so that the checks before
// a write can be seen to work.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

int statvfs(const char *path, struct statvfs *status) {
  int (*next)(const char *, struct statvfs *) =
      (int (*)(const char *, struct statvfs *))dlsym(RTLD_NEXT, "statvfs");
  const int result = next(path, status);
  const char *folder = getenv("FULL_DISK_BELOW");
  if (result == 0 && folder != NULL && strncmp(path, folder, strlen(folder)) == 0) {
    status->f_bavail = 0;
    status->f_bfree = 0;
  }
  return result;
}

int statvfs64(const char *path, struct statvfs64 *status) {
  return statvfs(path, (struct statvfs *)status);
}
