// optimisers.hpp: the C++ API in one include: rules, chains, setup, update, packing, threads. Guide: docs/cpp.md.
#pragma once
#include "optimisers/chain.hpp"
#include "optimisers/config.hpp"
#include "optimisers/error.hpp"
#include "optimisers/isa.hpp"
#include "optimisers/pack.hpp"
#include "optimisers/parse.hpp"
#include "optimisers/rules/all.hpp"
#include "optimisers/setup.hpp"
#include "optimisers/threads.hpp"
