/* main.c — the one binary: everything is a subcommand (src/cli). */
#include "cli.h"

int main(int argc, char **argv)
{
    return vv_cli_main(argc, argv);
}
