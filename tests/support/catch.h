// Catch2 2 and 3 under one name. Its CHECK, which tests do without, never hides base/error.h's:
// tests use REQUIRE.
#pragma once

#pragma push_macro("CHECK")
#undef CHECK
#ifdef ATOLL_CATCH2_V2
#include <catch2/catch.hpp>
#else
#include <catch2/catch_all.hpp>
using Catch::Approx;
#endif
#undef CHECK
#pragma pop_macro("CHECK")
