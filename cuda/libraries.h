// NVIDIA's libraries, which are all loaded at run time, so that the program also starts where one
// of them is missing, and uses those that came with Python packages. Only the driver is looked for
// by the CUDA runtime itself.
//
// A library is looked for in this order:
//   1. the folders of ATOLL_CUDA_LIBRARIES, divided by colons;
//   2. wherever the system's loader finds it: already loaded, the toolkit of the build,
//      LD_LIBRARY_PATH, /etc/ld.so.conf;
//   3. lib64 and lib of $CUDA_HOME, $CUDA_PATH and /usr/local/cuda;
//   4. nvidia/*/lib in the Python packages of $VIRTUAL_ENV, $CONDA_PREFIX, each `python3` on PATH,
//      ~/.local, /usr/local and /usr: pip's packages nvidia-*, which PyTorch brings.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"

namespace cuda {

struct Library {
  void* handle = nullptr;  // Never closed.
  std::string path;        // Of the file.
};

// `name` is a file's name, as "libcudnn.so.9". The first answer for a name stays. Fails with what
// was tried. Any thread.
base::Result<Library> load_library(const std::string& name);

// The function of that name; nullptr if there is none.
void* find_function(const Library& library, const char* name);

// "libcublasLt.so.13": the major version is the toolkit's that this program was built with.
std::string toolkit_library(const std::string& name);

// Steps 1, and 3 to 4, of the order above: the folders that exist. `variable` is getenv, and `root`
// stands before every absolute folder that is not a variable's value.
using Variable = std::function<const char*(const char* name)>;
struct LibraryFolders {
  std::vector<std::string> before, after;  // The system's own search.
};
LibraryFolders library_folders(const Variable& variable, const std::string& root = "");

}  // namespace cuda
