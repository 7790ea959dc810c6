// unload_plugin.cpp: loads a plugin, lets it train on four threads and unloads it, some times over: its threads must be
// gone before their code is.
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <thread>

int main(int count, char** arguments) {
  if (count != 2) return 2;
  for (int round = 0; round < 20; ++round) {
    void* plugin = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (plugin == nullptr) return std::fprintf(stderr, "unload_plugin: %s\n", dlerror()), 2;
    const auto train = reinterpret_cast<double (*)(int)>(dlsym(plugin, "plugin_train"));
    if (train == nullptr || train(4) != 1) return std::fprintf(stderr, "unload_plugin: it does not train\n"), 1;
    dlclose(plugin);
    if (dlopen(arguments[1], RTLD_NOW | RTLD_NOLOAD) != nullptr)
      return std::fprintf(stderr, "unload_plugin: the plugin is still there\n"), 1;
    std::this_thread::sleep_for(std::chrono::milliseconds(round % 2));  // awake or asleep, workers would crash here
  }
  std::puts("unload_plugin: loaded and unloaded 20 times");
}
