// Stands in for cudnn_graph.cpp in a build without cudnn-frontend's headers.
#include "cuda/cudnn_graph.h"

namespace cuda {

base::Result<std::unique_ptr<SdpaBuilder>> load_cudnn() {
  return base::Failure{"this program was built without cudnn-frontend"};
}

}  // namespace cuda
