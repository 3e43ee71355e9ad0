/* SPDX-License-Identifier: BSD-3-Clause */
/* In place of libFuzzer: tries each file of the folders that it is given. The last name on stderr is that of the input
 * that ends the program. */
#include <dirent.h>

#include "fuzz.h"

static void try_file(const char *path) {
  FILE *file = fopen(path, "rb");
  FUZZ_NEEDS(file && fseek(file, 0, SEEK_END) == 0, "cannot read %s", path);
  const long n = ftell(file);
  FUZZ_NEEDS(n >= 0, "cannot read %s", path);
  rewind(file);
  uint8_t *bytes = malloc(n ? (size_t)n : 1);
  FUZZ_NEEDS(bytes && fread(bytes, 1, (size_t)n, file) == (size_t)n, "cannot read %s", path);
  fclose(file);
  fprintf(stderr, "%s\n", path);
  LLVMFuzzerTestOneInput(bytes, (size_t)n);
  free(bytes);
}

int main(int argc, char **argv) {
  char path[4096];
  size_t n = 0;
  for (int i = 1; i < argc; i++) {
    DIR *folder = opendir(argv[i]);
    FUZZ_NEEDS(folder, "cannot read %s", argv[i]);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
      if (entry->d_name[0] == '.') continue;
      snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
      try_file(path);
      n++;
    }
    closedir(folder);
  }
  FUZZ_NEEDS(n > 0, "there are no inputs");
  printf("%zu inputs\n", n);
  return 0;
}
