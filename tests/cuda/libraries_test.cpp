// Where NVIDIA's libraries are looked for: folders in a scratch tree, no CUDA.
#include "cuda/libraries.h"

#include <filesystem>
#include <fstream>
#include <map>

#include "support/catch.h"
#include "support/temporary_folder.h"

namespace {

namespace fs = std::filesystem;

class Machine {
 public:
  std::string make(const std::string& folder) {
    fs::create_directories(root() + folder);
    return root() + folder;
  }
  void touch(const std::string& file) { std::ofstream(root() + file) << "not a library"; }
  void set(const std::string& name, const std::string& value) { variables_[name] = value; }
  cuda::LibraryFolders folders() const {
    const auto variable = [&](const char* name) -> const char* {
      const auto found = variables_.find(name);
      return found == variables_.end() ? nullptr : found->second.c_str();
    };
    return cuda::library_folders(variable, root());
  }
  std::string root() const { return scratch_.path(); }

 private:
  test::TemporaryFolder scratch_;
  std::map<std::string, std::string> variables_;
};

using Folders = std::vector<std::string>;

}  // namespace

TEST_CASE("cuda libraries: nothing is installed", "[libraries]") {
  const Machine machine;
  REQUIRE(machine.folders().before.empty());
  REQUIRE(machine.folders().after.empty());
}

TEST_CASE("cuda libraries: folders in their order", "[libraries]") {
  Machine machine;
  machine.set("ATOLL_CUDA_LIBRARIES", "/one::/two");
  machine.set("CUDA_HOME", machine.make("/opt/cuda"));
  machine.set("HOME", machine.make("/home/me"));
  machine.set("VIRTUAL_ENV", machine.make("/env"));
  const Folders expected = {
      machine.make("/opt/cuda/lib64"),
      machine.make("/usr/local/cuda/lib64"),
      machine.make("/env/lib/python3.12/site-packages/nvidia/cu13/lib"),
      machine.make("/env/lib/python3.12/site-packages/nvidia/cudnn/lib"),
      machine.make("/home/me/.local/lib/python3.11/site-packages/nvidia/nccl/lib"),
      machine.make("/usr/lib/python3/dist-packages/nvidia/nccl/lib"),
  };
  machine.make("/env/lib/python2.7/site-packages/nvidia/cudnn/lib");
  machine.make("/env/lib/python3.12/site-packages/nvidia/headers_only/include");
  REQUIRE(machine.folders().before == Folders{"/one", "/two"});
  REQUIRE(machine.folders().after == expected);
}

TEST_CASE("cuda libraries: the python3 on PATH, though it is a link out of its environment",
          "[libraries]") {
  Machine machine;
  machine.make("/usr/bin");
  machine.touch("/usr/bin/python3.12");
  const std::string bin = machine.make("/opt/torch/.venv/bin");
  fs::create_symlink(machine.root() + "/usr/bin/python3.12", bin + "/python3");
  const std::string wheel =
      machine.make("/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cudnn/lib");
  for (const std::string slash : {"", "/"}) {
    machine.set("PATH", machine.root() + "/nowhere:" + bin + slash);
    REQUIRE(machine.folders().after == Folders{wheel});
  }
  // The first one on PATH only starts another.
  machine.make("/shims");
  machine.touch("/shims/python3");
  machine.set("PATH", machine.root() + "/shims:" + bin);
  REQUIRE(machine.folders().after == Folders{wheel});
}

TEST_CASE("cuda libraries: what cannot be loaded is named, and asking again says the same",
          "[libraries]") {
  Machine machine;
  machine.touch("/libatoll_test_broken.so.1");
  setenv("ATOLL_CUDA_LIBRARIES", machine.root().c_str(), 1);
  for (int i = 0; i < 2; ++i) {
    const auto library = cuda::load_library("libatoll_test_broken.so.1");
    REQUIRE_FALSE(library.ok());
    INFO(library.reason());
    REQUIRE(library.reason().find(machine.root()) != std::string::npos);
    REQUIRE(library.reason().find("cannot be loaded") != std::string::npos);
  }
  unsetenv("ATOLL_CUDA_LIBRARIES");
}

TEST_CASE("cuda libraries: a library of the system", "[libraries]") {
  const auto library = cuda::load_library("libm.so.6");
  REQUIRE(library.ok());
  REQUIRE(fs::exists(library->path));
  REQUIRE(cuda::find_function(*library, "cos") != nullptr);
  REQUIRE(cuda::find_function(*library, "no_such_function") == nullptr);
}
