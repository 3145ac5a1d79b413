{ ... }:
{
    # nothing yet
}
