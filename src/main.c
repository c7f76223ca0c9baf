/* main.c — the binary: everything begins on the command line. */
#include "cli.h"

int main(int argc, char **argv)
{
    return vv_cli_main(argc, argv);
}
