// Catch2 2 and 3 under one name.
#pragma once

#ifdef ATOLL_CATCH2_V2
#include <catch2/catch.hpp>
#else
#include <catch2/catch_all.hpp>
using Catch::Approx;
#endif
