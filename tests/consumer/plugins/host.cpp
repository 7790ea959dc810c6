// host.cpp: loads both plugins, their symbols global, and lets each train by the other's program; then unloads one.
#include <dlfcn.h>

#include <cstdio>

using Program = const void* (*)();
using Train = int (*)(const void*);

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  void* plugin[2];
  Program program[2];
  Train train[2];
  for (int i = 0; i < 2; ++i) {
    plugin[i] = dlopen(argv[i + 1], RTLD_NOW | RTLD_GLOBAL);
    if (plugin[i] == nullptr) {
      std::fprintf(stderr, "%s\n", dlerror());
      return 2;
    }
    program[i] = reinterpret_cast<Program>(dlsym(plugin[i], "program_of_plugin"));
    train[i] = reinterpret_cast<Train>(dlsym(plugin[i], "train"));
  }
  int failed = 0;
  for (int of = 0; of < 2; ++of)
    for (int by = 0; by < 2; ++by)
      if (const int step = train[by](program[of]())) {
        std::fprintf(stderr, "plugin %d by the program of plugin %d: step %d failed\n", by, of, step);
        failed = 1;
      }
  dlclose(plugin[0]);
  if (train[1](program[1]()) != 0) failed = 1;
  return failed;
}
