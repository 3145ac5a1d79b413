{ ... }:
{
  imports =
    [ # Include the results of the hardware scan.
    ];
}
