"""`python -m training`: train the checkpoint `small`."""

from training.train_small import main

if __name__ == '__main__':
    main()
