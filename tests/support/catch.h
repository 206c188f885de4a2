// Catch2 2 and 3 under one name. Its CHECK gives way to base/error.h's and the other way round:
// tests use REQUIRE.
#pragma once

#ifdef CHECK
#undef CHECK
#endif
#ifdef ATOLL_CATCH2_V2
#include <catch2/catch.hpp>
#else
#include <catch2/catch_all.hpp>
using Catch::Approx;
#endif
